"""What is done to frames between a source and the analyses, alike in every command that reads frames."""
