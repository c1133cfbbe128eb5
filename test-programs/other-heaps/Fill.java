/** Keeps 64 MiB in the Java heap, says so, and waits for the end of its input. */
public final class Fill {
    public static void main(String[] arguments) throws java.io.IOException {
        byte[][] kept = new byte[1024][];
        for (int at = 0; at < kept.length; at++) {
            kept[at] = new byte[65536];
            java.util.Arrays.fill(kept[at], (byte) 1);
        }
        System.out.println("ready");
        while (System.in.read() >= 0) {}
        System.out.println(kept.length);
    }
}
