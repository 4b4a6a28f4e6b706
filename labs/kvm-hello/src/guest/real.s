# 16-bit real mode: where every x86 starts. Segment registers are 0, so an offset is an address.
        mov     dx, 0x3f8               # the first serial port of a PC
        mov     si, offset real_message
real_next:
        lodsb                           # al = *si++
        test    al, al
        jz      real_compute
        out     dx, al                  # leaves the machine: one exit per letter
        jmp     real_next
real_compute:
        mov     ax, 6
        mov     cx, 7
        mul     cx                      # ax = 42
        mov     [0x400], ax             # the host looks here, and into ax
        hlt                             # leaves the machine for the last time
guest_real_data:
real_message_:
        .asciz  "Hello from real mode\n"
        .set    real_message, 0x1000 + real_message_ - guest_real
