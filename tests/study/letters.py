"""A tokenizer of the letters a to z, for tests: as much of the interface as a page of the microscope needs."""


class Letters:
    def encode(self, text):
        return [ord(c) - ord("a") for c in text]

    def decode(self, ids):
        return "".join(chr(ord("a") + i) for i in ids)

    def decode_bytes(self, ids):
        return self.decode(ids).encode()
