# 64-bit long mode, ring 0. The result goes through a high virtual address, which the page
# tables lead to 0x400 in physical memory.
        mov     dx, 0x3f8
        lea     rsi, [rip + long_message]
long_next:
        lodsb                           # al = *rsi++
        test    al, al
        jz      long_compute
        out     dx, al
        jmp     long_next
long_compute:
        mov     eax, 6
        mov     ecx, 7
        mul     rcx
        mov     rbx, 0x123456789400
        mov     [rbx], rax
        hlt
guest_long_data:
long_message:
        .asciz  "Hello from 64 bits\n"
