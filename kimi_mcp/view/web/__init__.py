"""The page over HTTP: its routes, and who may see what."""
