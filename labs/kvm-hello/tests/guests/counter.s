# A driver for the counter: six interrupts, each acknowledged, and one that a reset takes back. 64 bits, ring 0.
# A byte written to port 0x12 is one tick of the counter's clock; to 0x10, the end.

        mov     al, 0x11                # interrupt controller: line 0 becomes vector 0x20
        out     0x20, al
        mov     al, 0x20
        out     0x21, al
        mov     al, 0x04
        out     0x21, al
        mov     al, 0x01
        out     0x21, al
        mov     al, 0xdf                # all masked but line 5
        out     0x21, al

        mov     rbx, 0x10000000
        mov     eax, [rbx]              # register 0: who are you?
        mov     [0x428], eax
        mov     dword ptr [rbx + 12], 3 # an interrupt every third tick
        mov     dword ptr [rbx + 4], 3  # run, with interrupt
        sti
        mov     ecx, 12
counter_first:
        out     0x12, al
        nop                             # an interrupt may come in here
        dec     ecx
        jnz     counter_first

        cli
        mov     ecx, 3
counter_late:
        out     0x12, al                # it expires, and nobody comes
        dec     ecx
        jnz     counter_late
        mov     dword ptr [rbx + 4], 4  # reset: nothing is left of that but what the controller has noted
        mov     eax, [rbx + 16]
        mov     [0x430], eax            # the status behind a reset
        sti
        nop
        nop
        mov     dword ptr [rbx + 12], 2
        mov     dword ptr [rbx + 4], 3
        mov     ecx, 4
counter_again:
        out     0x12, al
        nop
        dec     ecx
        jnz     counter_again
        cli
        out     0x10, al                # done
        hlt

        .org    0x100                   # vector 0x25: the counter
        push    rax
        mov     eax, [rbx + 16]
        add     [0x424], eax            # how many of them had a reason
        mov     dword ptr [rbx + 16], 1 # acknowledge
        mov     al, 0x20                # end of interrupt
        out     0x20, al
        pop     rax
        iretq
