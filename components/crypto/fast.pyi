from appliance.vchan.codec import Buffer

class Sealer:
    def __init__(self, key: bytes) -> None: ...
    def seal(
        self,
        packets: Buffer,
        start: int,
        size: int,
        count: int,
        padding: int,
        receiver: int,
        counter: int,
        out: memoryview,
        to: int,
    ) -> None: ...

class Opener:
    def __init__(self, key: bytes) -> None: ...
    def open(
        self, untrusted: Buffer, start: int, size: int, count: int, counter: int, out: memoryview, to: int
    ) -> bytes: ...

def succession(untrusted: Buffer, start: int, size: int, most: int) -> int: ...
def alike(packets: Buffer, start: int, size: int, most: int, first: int, address: int, width: int) -> int: ...
