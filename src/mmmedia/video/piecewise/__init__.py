"""Frames of a video of which only a part is read: what a file's own index says that they need.

A file's tables tell where each packet is. From them a **skeleton** is built, a small file with the header of
the whole and a place for every packet, in which only those at the front are real. All that the other rooms
find out of a file by its tables they find out of it: how many frames there are, when each is shown, what the
video is. Then the packets that the wanted frames need are read, and decoded as parts of the whole would be.
"""
