"""Folders of token shards: written, opened, verified, looked at."""
