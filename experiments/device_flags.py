"""The flag of the scripts that spread one training over devices."""

from absl import flags

NUM_DEVICES = flags.DEFINE_integer("num_devices", None, "Devices of each process that share a batch.", lower_bound=1)
