"""Pictures in files: which there are, what each shows, and their pixels, decoded once.

files.py      ImageFiles: all of it as the data of a workload
listing.py    which pictures, and their classes: folders, CSV, JSONL
splitting.py  which are held out, where the data don't say
transform.py  how a picture is cut to size, as plain data
decoding.py   one picture
worker.py     a process that decodes; pool.py: several of them
store.py      pixels in the cache
looking.py    what was found out meanwhile
"""
