"""Speed and memory of training: resx's engine against a conventional loop and against the machine's own limit."""
