"""The cut itself: tensors in, smaller tensors out; and the masks that preview it."""
