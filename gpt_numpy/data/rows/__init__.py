"""From tokens of documents to the rows of a batch."""
