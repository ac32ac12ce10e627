"""What a reply may look like: schemas and grammars, token by token."""
