"""What a run looked like: tables, pictures and one self-contained HTML page.

=============== ========================================================
runs            read a run's folder: log, settings, weights
demo            read the demo's folder
pictures        draw it
weight_pictures ... its weights
log_pictures    ... beside a published log
time_pictures   ... times by layer and mode
speed_pictures  ... speed-ups
plots           the pictures of a folder as files
tables          put results in rows of text
page            everything on one HTML page
html            ... the pieces of it
reproduce       an experiment that was trained: README.md and pictures
depth           ... one that removes layers
width           ... one that narrows blocks
speed           an experiment of speed-ups
captions        ... what its pictures show, in words
results         what the README.md of both share
index           README.md of all results
=============== ========================================================
"""
