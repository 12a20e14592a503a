"""Files with labels: which there are, and what becomes of each, once, whatever it holds.

sorts.py      what is told apart of pictures and sounds: words, suffixes, who decodes them
listing.py    which files, and their classes: folders, lists of paths and labels
rows.py       CSV, TSV and JSONL
shards.py     WebDataset's tar files; content.py: what a file, or a member of them, holds
splitting.py  which are held out, where the data don't say
worker.py     a process that decodes; pool.py: several of them
store.py      what they made, in the cache
copies.py     which are the same file
looking.py    what all data say of themselves: splits, copies, damaged files
files.py      LabelledFiles: all of it as the data of a workload
"""
