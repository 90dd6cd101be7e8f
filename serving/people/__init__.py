"""Who asks: recognizing people and programs, what they may do and take, and what is kept of them."""
