"""Sounds in files, made to features once; what they share with other files is in edgekit/media.

files.py      SoundFiles: all of them as the data of a workload
transform.py  SoundTransform: rate, length and features, as plain data
wav.py        WAV, from its bytes
decoding.py   one file: samples of one channel at one rate
features.py   logarithms of energies in mel bands
looking.py    what was found out meanwhile
sort.py       what is told apart of sounds
"""
