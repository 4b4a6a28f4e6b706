# A guest whose start is slow and whose work is small. 64 bits, ring 3; rdi, rcx, r8, r9, rbx from the host.

        .org    0x000                   # "boot": write something to every page from rdi on, rcx pages
dirty_boot:
        mov     [rdi], rdi
        add     rdi, 4096
        dec     rcx
        jnz     dirty_boot
        out     0x10, al                # ready: the moment for a snapshot

        mov     r10, 6364136223846793005
        mov     r11, 1442695040888963407
dirty_work:                             # r9 times: a page picked by the generator with seed r8
        imul    r8, r10
        add     r8, r11
        mov     rdi, r8
        shr     rdi, 40
        and     rdi, 4095               # one of 4096 pages
        shl     rdi, 12
        mov     [rdi + 0x1000008], r8   # from 16 MiB on
        dec     r9
        jnz     dirty_work
        mov     rax, rbx                # who am I?
        imul    rax, rbx
        mov     [0x400], rax
        out     0x11, al                # done
        hlt
guest_dirty_data:
