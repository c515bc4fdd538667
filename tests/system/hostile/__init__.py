"""A hostile component in place of each component in turn: what it tries, and the box it is put into."""
