"""The node library. A topology names a node as `module:Class`; nothing is registered.

| node | kind | what it does |
|---|---|---|
| `nodes.filetype:Features` | preprocess | bytes of a file to what Magika's model takes |
| `nodes.filetype:Label` | preprocess | scores to the name of the best class |
| `nodes.image:DecodeImage` | preprocess | PNG or JPEG to pixels |
| `nodes.onnx:OnnxPredict` | predict | an ONNX model |
| `nodes.tabular:Scale` | preprocess | subtract and divide |
| `nodes.text:Lowercase` | preprocess | text to lower case |
"""
