"""Folders of token shards: writing, opening, verifying and inspecting them."""
