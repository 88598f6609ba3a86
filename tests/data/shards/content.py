"""What a folder holds, for comparisons."""


def folder_bytes(folder):
    """Path in ``folder`` → bytes, of every file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
