"""`bench quality`: what recipes cost a language model, and what they gain."""
