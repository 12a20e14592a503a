"""What an app developer needs beside the model file: generated, and tested against the file's own answers.

::

    contents.py     what every bundle is made from: the file, labels, preprocessing, golden samples
    gathering.py    the same out of a finished run
    choosing.py     which of its files
    sounds.py       sounds whose features every language has to compute alike
    golden.py       validation samples, and what the file answers to them
    answering.py    the file in its runtime
    templates.py    jinja, with a filter for each language's literals
    common.py       files that all bundles have
    names.py        identifiers and literals: names of files and classes stay data in every language
    words.py        what the READMEs say
    writing.py      a bundle's folder with bundle.json: every file with its sha256
    checking.py     is it still what was written, and does it still answer as it should
    targets/        one for each language: Contents → files
    c_sounds/       a sound's features as one C header
    c_detection/    boxes out of outputs as one C header
    c99/            plain C without dependencies from an int8 LiteRT file
"""
