"""The node library. A topology names a node as `module:Class`; nothing is registered.

| node | kind | what it does |
|---|---|---|
| `nodes.embedding:SentenceEmbedding` | predict | sentences to vectors |
| `nodes.filetype:Features` | preprocess | bytes of a file to what Magika's model takes |
| `nodes.filetype:Label` | preprocess | scores to the name of the best class |
| `nodes.image:DecodeImage` | preprocess | PNG or JPEG to pixels |
| `nodes.ocr_lines:FindLines` | predict | pages to the lines on them: more rows, or fewer |
| `nodes.ocr_lines:ReadLines` | predict | lines to their text |
| `nodes.ocr_page:Orientation` | preprocess | a page to what the orientation model takes |
| `nodes.ocr_page:Turn` | preprocess | a page turned back, by the orientation model's scores |
| `nodes.ocr_page:TurnLine` | preprocess | a line upside down |
| `nodes.onnx:OnnxPredict` | predict | an ONNX model |
| `nodes.surest:Surest` | aggregate | each row from the branch that is surest of it |
| `nodes.tabular:Scale` | preprocess | subtract and divide |
| `nodes.text:Lowercase` | preprocess | text to lower case |
"""
