"""Reading and writing PNG files with zlib, and what the scripts of this skill share."""

import json
import os
import struct
import sys
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {0: "grey", 2: "rgb", 3: "palette", 4: "grey with alpha", 6: "rgb with alpha"}
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PIXELS_MAX = 64 * 1024 * 1024


class Failure(Exception):
    """Something that the caller can put right."""


def main(work):
    """Runs a tool: arguments from standard input, the result or a failure to standard output."""
    try:
        result = work(json.load(sys.stdin))
    except Failure as failure:
        result = {"success": False, "message": str(failure)}
    except OSError as error:
        result = {"success": False, "message": f"{error.filename}: {error.strerror}"}
    print(json.dumps(result))


class Png:
    def __init__(self, path):
        self.path = path
        self.chunks = []  # (name, data, whether the checksum is right)
        with open(path, "rb") as file:
            if file.read(8) != SIGNATURE:
                raise Failure(f"{path} is not a PNG file")
            left = os.path.getsize(path) - 8
            while True:
                head = file.read(8)
                if len(head) < 8:
                    break
                length, name = struct.unpack(">I4s", head)
                left -= 12 + length
                if left < 0:
                    raise Failure(f"{path} ends in the middle of the chunk {name.decode('latin-1')}")
                data, check = file.read(length), file.read(4)
                right = struct.unpack(">I", check)[0] == zlib.crc32(name + data)
                self.chunks.append((name.decode("latin-1"), data, right))
        if not self.chunks or self.chunks[0][0] != "IHDR" or len(self.chunks[0][1]) != 13:
            raise Failure(f"{path} does not begin with an image header")
        self.width, self.height, self.depth, self.colour, _, _, interlace = struct.unpack(">IIBBBBB", self.chunks[0][1])
        self.interlaced = interlace != 0
        if self.colour not in CHANNELS or not self.width or not self.height:
            raise Failure(f"{path} has a header that no PNG file can have")

    def data(self, name):
        return next((data for other, data, _ in self.chunks if other == name), None)

    def rows(self):
        """Rows of (red, green, blue, alpha), each 0 to 255."""
        if self.interlaced or self.depth not in (8, 16):
            raise Failure(f"{self.path}: interlaced images and less than 8 bits are not read")
        if self.width * self.height > PIXELS_MAX:
            raise Failure(f"{self.path} has more than {PIXELS_MAX} pixels")
        channels, size = CHANNELS[self.colour], self.depth // 8
        step = channels * size
        stride = self.width * step
        wanted = self.height * (stride + 1)
        unpack = zlib.decompressobj()
        try:
            raw = unpack.decompress(b"".join(data for name, data, _ in self.chunks if name == "IDAT"), wanted)
        except zlib.error as error:
            raise Failure(f"{self.path}: its pixels are broken: {error}") from None
        if len(raw) < wanted:
            raise Failure(f"{self.path}: pixels are missing")
        above = bytearray(stride)
        for at in range(0, wanted, stride + 1):
            above = unfilter(raw[at], bytearray(raw[at + 1:at + 1 + stride]), above, step)
            # The high byte of 16 bits is enough for a colour of 8.
            yield self.pixels(above[::size] if size == 2 else above)

    def pixels(self, values):
        if self.colour == 0:
            return [(v, v, v, 255) for v in values]
        if self.colour == 2:
            return [(r, g, b, 255) for r, g, b in zip(values[::3], values[1::3], values[2::3])]
        if self.colour == 4:
            return [(v, v, v, a) for v, a in zip(values[::2], values[1::2])]
        if self.colour == 6:
            return list(zip(values[::4], values[1::4], values[2::4], values[3::4]))
        palette, alpha = self.data("PLTE") or b"", self.data("tRNS") or b""
        colours = [tuple(palette[at:at + 3]) + (alpha[at // 3] if at // 3 < len(alpha) else 255,) for at in range(0, len(palette) - 2, 3)]
        try:
            return [colours[v] for v in values]
        except IndexError:
            raise Failure(f"{self.path}: a pixel has a colour that is not in the palette") from None


def unfilter(kind, row, above, step):
    """Undoes a row's filter (PNG specification, chapter 9)."""
    if kind > 4:
        raise Failure("a row has an unknown filter")
    if kind == 0:
        return row
    for at, value in enumerate(row):
        left = row[at - step] if at >= step else 0
        up = above[at]
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) // 2
        else:
            corner = above[at - step] if at >= step else 0
            far = left + up - corner
            guess = min((left, up, corner), key=lambda near: abs(far - near))
        row[at] = (value + guess) & 255
    return row


def write(path, width, rows):
    """Writes rows of RGB bytes."""
    raw = b"".join(b"\0" + bytes(row) for row in rows)
    header = struct.pack(">IIBBBBB", width, len(rows), 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(SIGNATURE)
        for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))
