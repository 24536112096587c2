"""Live sources: each yields batches of frames from somewhere and accounts for every frame that it lost."""
