#!/usr/bin/env python3
"""A data frame out of an .rda file of R as CSV: rda_to_csv.py FILE.rda CLASS_COLUMN > FILE.csv

Reads the XDR form of R's serialisation, compressed or not. Columns of numbers and factors only; the class comes last,
under the name "class". Needs no package.
"""
import bz2, gzip, lzma, struct, sys


def unpacked(path):
    raw = open(path, "rb").read()
    for magic, opener in ((b"\x1f\x8b", gzip.decompress), (b"BZh", bz2.decompress), (b"\xfd7zXZ", lzma.decompress)):
        if raw.startswith(magic):
            return opener(raw)
    return raw


class Reader:
    def __init__(self, data):
        if data[:7] not in (b"RDX2\nX\n", b"RDX3\nX\n"):
            sys.exit("rda_to_csv: not an .rda file in XDR form")
        self.data, self.at, self.refs = data, 7, []
        version = self.int()
        self.at += 8  # the versions of R that wrote it and that can read it
        if version == 3:
            self.at += self.int()  # native encoding

    def int(self):
        self.at += 4
        return struct.unpack_from(">i", self.data, self.at - 4)[0]

    def many(self, code, size):
        n = self.int()
        self.at += n * size
        return list(struct.unpack_from(f">{n}{code}", self.data, self.at - n * size))

    def item(self):
        """(value, attributes); a pair list is a list of (tag, value, attributes)."""
        flags = self.int()
        kind, has_attributes, has_tag = flags & 255, flags >> 9 & 1, flags >> 10 & 1
        if kind == 254:  # NULL
            return None, {}
        if kind == 255:  # a symbol met before
            return self.refs[(flags >> 8) - 1], {}
        if kind == 1:  # symbol
            name = self.item()[0]
            self.refs.append(name)
            return name, {}
        if kind == 2:  # pair list
            pairs = []
            while True:
                attributes = self.attributes() if has_attributes else {}
                tag = self.item()[0] if has_tag else None
                pairs.append((tag, *self.item()))
                flags = self.int()
                if flags & 255 == 254:
                    return pairs, attributes
                has_attributes, has_tag = flags >> 9 & 1, flags >> 10 & 1
        if kind == 9:  # one string
            n = self.int()
            if n < 0:
                return "NA", {}
            self.at += n
            return self.data[self.at - n : self.at].decode("utf-8", "replace"), {}
        if kind in (10, 13):
            value = self.many("i", 4)
        elif kind == 14:
            value = self.many("d", 8)
        elif kind == 16:
            value = [self.item()[0] for _ in range(self.int())]
        elif kind == 19:
            value = [self.item() for _ in range(self.int())]
        elif kind == 238:  # compact sequence and its like: class, state, attributes
            self.item()
            state = self.item()[0]
            self.item()
            return [int(state[1] + i * state[2]) for i in range(int(state[0]))], {}
        else:
            sys.exit(f"rda_to_csv: an item of type {kind} at byte {self.at}, which this reader does not know")
        return value, (self.attributes() if has_attributes else {})

    def attributes(self):
        return {tag: value for tag, value, _ in self.item()[0] or []}


def main():
    path, wanted = sys.argv[1:3]
    [(_, columns, attributes), *_] = Reader(unpacked(path)).item()[0]
    table = {}
    for name, (values, more) in zip(attributes["names"], columns):
        levels = more.get("levels")
        table[name] = [levels[v - 1] for v in values] if levels else values
    if wanted not in table:
        sys.exit(f"rda_to_csv: no column {wanted} among {', '.join(table)}")
    names = [n for n in table if n != wanted]
    print(",".join([*names, "class"]))
    for row in zip(*(table[n] for n in [*names, wanted])):
        print(",".join(f"{v:g}" if isinstance(v, float) else str(v).replace(",", " ") for v in row))


main()
