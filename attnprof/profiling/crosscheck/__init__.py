"""The same forward pass counted by others, and each difference traced to the ops that it comes from.

    ask.ask_case(case, counter)               -> Opinion     in a child: `attnprof.execute.crosscheck` keeps it in bounds
    ask.crosscheck_module(module, inputs)     -> Opinions    a module that is there, in this process; it is left as it was found

`reference` runs the pass and notes what really ran, op by op, by module and by the Python function that asked for it;
`counters` asks a counter what it counted, item by item; `explain` lays the two beside each other and words the difference.

Every counter gets a fresh copy with real inputs, in evaluation, gradients as its users have them (on for fvcore and ptflops,
off for torch). Multiply-accumulates throughout: torch's FLOPs are halved. This file imports no torch.
"""
