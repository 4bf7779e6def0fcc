"""What tests share: readers, scripted LLMs, and the apps and programs that they put on real sockets."""
