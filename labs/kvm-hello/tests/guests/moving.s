# A guest that works while it is moved: adds random numbers to pages, sixteen at a time. 64 bits, ring 3.
# From the host: r8 the seed, r9 how often, rbx 0. It leaves by port 0x12 at every 256th step, by 0x10 at the end.

        mov     r10, 6364136223846793005
        mov     r11, 1442695040888963407
moving_step:
        imul    r8, r10                 # Knuth's MMIX generator
        add     r8, r11
        mov     rdi, r8
        shr     rdi, 40
        and     rdi, 15                 # one of sixteen pages
        mov     rsi, r9
        shr     rsi, 12
        and     rsi, 0xf0               # which move on as time goes by
        or      rdi, rsi
        shl     rdi, 12
        add     [rdi + 0x100000], r8    # from 1 MiB on
        add     rbx, r8
        dec     r9
        jz      moving_end
        test    r9, 255
        jnz     moving_step
        out     0x12, al
        jmp     moving_step
moving_end:
        mov     [0x400], rbx            # the sum of all
        out     0x10, al
        hlt
