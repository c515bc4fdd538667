"""A domain that only says that it is sealed."""

import mmap
import time

MAGIC = 0x4D55545045530001
words = memoryview(mmap.mmap(4, 4096)).cast("Q")
words[0] = MAGIC
words[1] = 3
while True:
    time.sleep(1)
