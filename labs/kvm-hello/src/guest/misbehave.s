# Ways to go wrong. 64 bits, ring 0; rbx and dx are set by the host.

        .org    0x000                   # never comes back
misbehave_loop:
        jmp     misbehave_loop

        .org    0x010                   # an exception without a handler, and no handler for that either
        ud2

        .org    0x020                   # no memory there
        mov     rax, [rbx]
        hlt

        .org    0x030                   # no device there
        in      al, dx
        hlt

        .org    0x040                   # no memory there, to run
        jmp     rbx

        .org    0x050                   # one that KVM's emulator does not know, should it be asked
        popcnt  rax, rbx
        hlt
guest_misbehave_data:
