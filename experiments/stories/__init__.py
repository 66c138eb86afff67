"""The stories of the five reference cases: each turns a reproduced case into the sections of its page."""
