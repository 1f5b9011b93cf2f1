"""The network: weights, encoder, sparsify, decoder, and the formats that weights come in.

Shape suffixes, the last letters of a tensor's name:

    B  windows of a batch, or decode slots      N  new tokens of a step
    F  mel bins (80 or 128)                     H  attention heads
    T  frames: 3000 in a log-mel, 1500 encoder  K  dimensions of a head (64)
       positions, or those kept of them         V  vocabulary
    D  model dimension                          L  layers
"""
