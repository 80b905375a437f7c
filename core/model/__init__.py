"""What a model is: its family's map of tensors, its dimensions and cost, and its checkpoint on disk."""
