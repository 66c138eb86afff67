"""cnnprobe: why is my CNN not learning, and what will fix it?"""
