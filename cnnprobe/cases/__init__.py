"""The five reference cases: real questions about CNNs that would not learn, each as a problem to diagnose.

Each function builds the reported network on the closest images that come with the package, at a size that two processor
cores train in seconds; its arguments scale it up to the report's own.
"""

from cnnprobe.cases.blood_cells import blood_cells
from cnnprobe.cases.checklist import checklist
from cnnprobe.cases.resnet_digits import resnet_digits
from cnnprobe.cases.sixteen_classes import sixteen_classes
from cnnprobe.cases.stuck_at_a_third import stuck_at_a_third
