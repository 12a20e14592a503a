"""Pictures in files, decoded once; what they share with other files is in edgekit/media.

files.py      ImageFiles: all of them as the data of a workload
transform.py  how a picture is cut to size, as plain data
decoding.py   one picture
looking.py    what was found out meanwhile
sort.py       what is told apart of pictures
"""
