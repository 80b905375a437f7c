"""What a model can still do: perplexity, divergence from the teacher, text, speed."""
