# A driver for three devices: a timer inside KVM, a serial port and a multiplier of ours. 64 bits, ring 0.
# Registers that live through it: rsi is the next character to send.

        # Interrupt controller: line 0 becomes vector 0x20; all masked but 0 (timer) and 4 (serial).
        mov     al, 0x11
        out     0x20, al
        mov     al, 0x20
        out     0x21, al
        mov     al, 0x04
        out     0x21, al
        mov     al, 0x01
        out     0x21, al
        mov     al, 0xee
        out     0x21, al

        # Timer: channel 0, rate generator, 1193182 Hz / 1193.
        mov     al, 0x34
        out     0x43, al
        mov     al, 0xa9
        out     0x40, al
        mov     al, 0x04
        out     0x40, al
devices_wait_ticks:
        cli
        cmp     dword ptr [0x420], 20
        jae     devices_serial
        sti                             # takes effect behind the next instruction, so that no
        hlt                             # interrupt can slip in between and leave us asleep
        jmp     devices_wait_ticks

devices_serial:
        mov     al, 0xef                # no more ticks
        out     0x21, al
        lea     rsi, [rip + devices_prompt]
        mov     dx, 0x3f9               # interrupt enable: byte received, transmitter empty
        mov     al, 3
        out     dx, al
devices_wait_line:
        cli
        cmp     byte ptr [0x424], 0
        jne     devices_multiply
        sti
        hlt
        jmp     devices_wait_line

devices_multiply:
        mov     rbx, 0x10000000         # where the host has put its device
        mov     eax, [rbx]              # register 0: who are you?
        mov     [0x428], eax
        mov     dword ptr [rbx + 4], 6
        mov     dword ptr [rbx + 8], 7
        mov     eax, [rbx + 12]         # register 12: the product
        mov     [0x400], rax
        out     0x10, al                # done
        hlt

        .org    0x100                   # vector 0x20: the timer
        push    rax
        inc     dword ptr [0x420]
        out     0x11, al                # the host notes the time
        mov     al, 0x20                # end of interrupt
        out     0x20, al
        pop     rax
        iretq

        .org    0x180                   # vector 0x24: the serial port
        push    rax
        push    rdx
devices_why:
        mov     dx, 0x3fa               # interrupt identification
        in      al, dx
        cmp     al, 4
        je      devices_receive
        cmp     al, 2
        jne     devices_end_of_interrupt
        cmp     byte ptr [rsi], 0       # the transmitter is empty: another character?
        je      devices_sent
        lodsb
        mov     dx, 0x3f8
        out     dx, al
        jmp     devices_why
devices_sent:
        mov     dx, 0x3f9               # from now on only what is received
        mov     al, 1
        out     dx, al
        jmp     devices_why
devices_receive:
        mov     dx, 0x3f8
        in      al, dx
        cmp     al, 10
        je      devices_line
        and     al, 0xdf                # upper case
        out     dx, al
        jmp     devices_why
devices_line:
        out     dx, al
        mov     byte ptr [0x424], 1
        jmp     devices_why
devices_end_of_interrupt:
        mov     al, 0x20
        out     0x20, al
        pop     rdx
        pop     rax
        iretq
guest_devices_data:
devices_prompt:
        .asciz  "say something> "
