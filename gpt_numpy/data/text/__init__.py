"""Documents from text: finding and opening files, dividing text into documents, normalising."""
