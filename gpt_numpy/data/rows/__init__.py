"""From the tokens of documents to the rows of a batch."""
