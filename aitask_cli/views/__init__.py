"""All that is printed: Rich tables, plain text and the JSON shape."""
