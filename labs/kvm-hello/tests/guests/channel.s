# Asks for a name, and greets: four requests, two doorbells. 64 bits, ring 0, at 0x1000.

        mov     ebx, 0x1100             # the requests
        mov     edx, 0x510              # the doorbell
        lea     eax, [rbx]              # ask, and read the answer
        out     dx, eax
        mov     eax, [rbx + 0x20 + 20]  # so many bytes were read
        mov     [rbx + 0x60 + 16], eax  # and are to be printed
        lea     eax, [rbx + 0x40]       # greet
        out     dx, eax
        in      eax, dx                 # how many requests were answered?
        mov     [rbx + 0x80], eax
        out     0x10, al                # done
        hlt

        .org    0x100                   # op, status, buffer, length, done, next
        .long   1, 0
        .quad   0x1200
        .long   6, 0
        .quad   0x1120
        .long   2, 0
        .quad   0x1300
        .long   64, 0
        .quad   0
        .long   1, 0
        .quad   0x1210
        .long   7, 0
        .quad   0x1160
        .long   1, 0
        .quad   0x1300
        .long   0, 0
        .quad   0

        .org    0x200
        .ascii  "name? "
        .org    0x210
        .ascii  "hello, "
