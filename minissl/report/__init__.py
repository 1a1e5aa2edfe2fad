"""What a run looked like: tables, pictures and one self-contained HTML page.

========= ============================================
runs      read a run's folder: log, settings, weights
demo      read the demo's folder
pictures  draw it
plots     the pictures of a folder as files
tables    put results in rows of text
page      everything on one HTML page
========= ============================================
"""
