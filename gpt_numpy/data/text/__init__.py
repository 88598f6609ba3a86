"""Where text comes from, as documents, and what is done to it before it is encoded."""
