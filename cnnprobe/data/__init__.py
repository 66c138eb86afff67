"""Images and labels: bundled, rendered or from the user's files; and how a run draws them."""
