"""How the heavy arithmetic is done on a processor: the one room that knows private operators."""
