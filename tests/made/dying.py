"""Work that ends the process that does it."""

import os


def die(job, shard):
    os._exit(9)
