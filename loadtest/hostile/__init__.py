"""Files, forms, frames and connections that no honest client sends, and what the service makes of
them."""
