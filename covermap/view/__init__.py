"""The viewer: maps, changes and imagery in a browser, without a network.

paths -> layers -> one frame of pixels -> tiles, values under a click, references of points -> a server or a folder
"""
